"""Protobuf messages and stubs of mnemo.v1, generated when the package is built."""
