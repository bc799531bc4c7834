"""disco_fast inside other engines: one module each, imported only by who has it."""
