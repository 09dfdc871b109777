package keyspace

import "fmt"

// Table names one of the durable tables that are not record data. Tables
// share the metadata key space; each belongs to the part of the program named
// beside it, which alone decides what its keys and values mean. The numbers
// are on disk and never change.
type Table uint8

// The tables.
const (
	TableLease         Table = 1  // leases on shards, package lease
	TableCheckpoint    Table = 2  // how far a consumer has handled a shard
	TableModuleState   Table = 3  // state a Wasm consumer keeps
	TableOutbox        Table = 4  // calls to the outside that a consumer asked for, not yet made
	TableRecipe        Table = 5  // sealed objects of delivery streams, not yet delivered
	TableManifest      Table = 6  // delivered objects
	TableSetting       Table = 7  // settings, tags and policies, a prefix per service
	TableModule        Table = 8  // module catalogue
	TableModuleBytes   Table = 9  // module binaries
	TableDelivery      Table = 10 // delivery streams: definition, state, counters
	TableConsumer      Table = 11 // registered stream consumers and Wasm consumers
	TableLeaseTable    Table = 12 // items of the lease tables that KCL keeps
	TableMetric        Table = 13 // metric points kept for the console
	TableUpdate        Table = 14 // system update state
	TableMQTT          Table = 15 // MQTT sessions and retained state
	TableSubscription  Table = 16 // durable subscriptions of the plain interface
	TableIdentity      Table = 17 // access keys and users
	TableDeduplication Table = 18 // request ids already handled
	TableThrottle      Table = 19 // quotas and budgets that outlive a restart
	TableAudit         Table = 20 // who changed what, and when

	// MaxTable is the highest table in use.
	MaxTable = TableAudit
)

var tableNames = [MaxTable + 1]string{
	TableLease: "lease", TableCheckpoint: "checkpoint", TableModuleState: "module-state", TableOutbox: "outbox",
	TableRecipe: "recipe", TableManifest: "manifest", TableSetting: "setting", TableModule: "module",
	TableModuleBytes: "module-bytes", TableDelivery: "delivery", TableConsumer: "consumer", TableLeaseTable: "lease-table",
	TableMetric: "metric", TableUpdate: "update", TableMQTT: "mqtt", TableSubscription: "subscription",
	TableIdentity: "identity", TableDeduplication: "deduplication", TableThrottle: "throttle", TableAudit: "audit",
}

// String returns the table's name as inspect prints it.
func (t Table) String() string {
	if t > 0 && t <= MaxTable {
		return tableNames[t]
	}
	return fmt.Sprintf("table-%d", uint8(t))
}

// ParseTable is the inverse of Table.String for tables in use.
func ParseTable(name string) (Table, bool) {
	for t := Table(1); t <= MaxTable; t++ {
		if tableNames[t] == name {
			return t, true
		}
	}
	return 0, false
}

// Valid says whether t is a table in use.
func (t Table) Valid() bool { return t > 0 && t <= MaxTable }
