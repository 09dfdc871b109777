// Package delivery moves records from the shards of a stream to a sink:
//
//	shards ─► collect ─► seal ─► plan ─► render ─► sink ─► finish
//	          ranges     one     objects  the log,  PUT     manifest rows
//	          by size    small   of the   again     once    recipe deleted
//	          and time   row     recipe
//
// A batch is a recipe, not a copy: a durable row that names index ranges of
// the log. Its objects are made from the log whenever they are needed, with
// the same names and the same records each time. A crash at any place
// therefore ends in one of three states: not sealed (the cursor still stands
// before the range), sealed (the objects are made again; the ones that are
// there already say so), finished. Cursor and recipe, and later recipe and
// manifest, change in one transaction each.
//
// It owns the delivery streams' definitions, cursors, recipes and manifests,
// and the uplink: shares, priorities, rate, windows, budgets. It declares Sink
// and never knows a protocol. It never copies records to disk, and all
// deliveries together stay below Options.MemoryBytes.
package delivery
