"""What ends with its owner: processes, folders, shared memory."""
