package consume

import "time"

// LimitOutbox sets how many requests of a shard may wait to be sent.
func (e *Engine) LimitOutbox(rows int) { e.outboxRows = rows }

// LimitShadow sets how long a shadow may break on a batch, and be behind its active version.
func (e *Engine) LimitShadow(d time.Duration) { e.shadowBatch, e.shadowHead = d, d }
