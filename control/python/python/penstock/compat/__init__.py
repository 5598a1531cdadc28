"""Other packages' names for what Penstock does: change one import."""
