"""Recordings: headers and samples, exact to the sample."""
