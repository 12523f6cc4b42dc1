"""The six classifiers, their calibration, and the scikit-learn estimator."""
