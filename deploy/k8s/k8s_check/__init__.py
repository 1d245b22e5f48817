"""Finds what schemas cannot: errors between the Kubernetes resources of one rendered overlay."""
