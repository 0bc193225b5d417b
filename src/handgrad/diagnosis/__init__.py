"""Which term of a gradient is wrong, by what mistake, and where."""
