"""Texts in, labels out: micro-batched scoring with every answer on record."""
