"""What a task is made of: operators that receive batches and watermarks and hand them on."""
