package consume

// LimitOutbox sets how many requests of a shard may wait to be sent.
func (e *Engine) LimitOutbox(rows int) { e.outboxRows = rows }
