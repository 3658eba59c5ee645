"""Perceptual hashes: pictures that look alike have hashes that differ in few bits."""

from __future__ import annotations
