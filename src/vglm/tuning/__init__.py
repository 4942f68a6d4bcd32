"""Fine-tuning: what trains (`methods`), the loop (`trainer`) and the folder a run leaves behind (`run_folder`)."""
