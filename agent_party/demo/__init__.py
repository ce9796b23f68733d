"""`party demo`: work, a crash, recovery, an approval, an answer, and tampering found. All of it for real."""
