"""Performance reports whose numbers come from data only."""
