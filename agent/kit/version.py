"""The version, as pyproject.toml says: here, all programs can read it without importing package metadata."""

VERSION = "0.1.0"
