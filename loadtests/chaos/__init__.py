"""Breaks the whole system on purpose and checks what must hold meanwhile; and watches it over a long time."""
