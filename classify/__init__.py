"""Cached features become speaker names, scores and honest tables (no torch here).

In the order of the data: `data`, `linear`, `logistic`, `trees`, `classifiers`, `calibrate`,
`measures`, `sweep`, `model`, `folder`, `score`, `outcome`, `plot`, `show`, `cli`; `estimator`
serves scikit-learn users.
"""

__all__: list[str] = []
