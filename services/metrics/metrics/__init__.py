"""Every prediction stored once, and answers about any window that don't slow down with history."""
