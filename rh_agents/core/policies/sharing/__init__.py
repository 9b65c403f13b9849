"""What processes share by one row of their store: functions of a row and a question."""
