"""What takes a prompt and gives pictures: models, schedules and samplers put together."""
