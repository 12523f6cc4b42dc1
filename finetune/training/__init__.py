"""Train one session or many, with stopping and resuming."""
