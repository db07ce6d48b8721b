-- Each half of `list_rejected`: what a client has rejected, and what was rejected of its messages.
CREATE INDEX rejected_by_receiver ON rejected_messages (receiver_client_id, rejected_time, message_id);
CREATE INDEX rejected_by_sender ON rejected_messages (client_id, rejected_time, message_id);
