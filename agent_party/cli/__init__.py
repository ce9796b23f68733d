"""The `party` command. Each command's work is an async function that returns an `Answer`; see `session`."""
