"""Code that all Sluice services share."""
