"""Probes of unsolved cases searched again against what was enrolled since."""
