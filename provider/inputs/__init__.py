"""Inputs of a request, checked and normalised."""
