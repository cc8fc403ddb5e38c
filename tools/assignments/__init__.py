"""Graded assignments: a submission proposes, the judge measures."""
