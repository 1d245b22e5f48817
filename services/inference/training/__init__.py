"""Makes the served model from an encoder and an adapter; runs on a developer's machine and is never shipped."""
