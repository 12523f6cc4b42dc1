"""Training of one session or many, stopped and resumed."""
