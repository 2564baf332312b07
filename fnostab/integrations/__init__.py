"""Callbacks for training frameworks other than Lightning: one module each, which needs the extra of the same name."""
