package appliance

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
	"github.com/weirhq/weir/wasm/guest"
	"github.com/weirhq/weir/wasm/module"
)

// metrics answers /metrics in Prometheus text form. Parts count for themselves;
// here they are asked. The names are an API: a change is a CHANGE line of the
// changelog.
func (b *box) metrics(_ context.Context, req api.Request, res api.Response) {
	if !req.Identity().Allows("admin:GetMetrics", "") {
		api.WriteError(res, &api.Refusal{Status: 403, Code: "AccessDenied", Message: "admin:GetMetrics: not allowed for this access key"})
		return
	}
	res.SetHeader("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	b.writeBox(res)
	b.writeListener(res)
	b.writeStreams(res)
	writeModules(res, b.modules.List())
	b.deliveries.WriteMetrics(res)
	metrics.WriteProcessMetrics(res)
}

func gauge[T int | int64 | uint64 | float64](w io.Writer, name string, v T) {
	fmt.Fprintf(w, "%s %v\n", name, v)
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

func (b *box) writeBox(w io.Writer) {
	state, ledger := b.store.State(), b.store.Ledger()
	fmt.Fprintf(w, "weir_info{version=%q} 1\n", b.Version)
	gauge(w, "weir_uptime_seconds", time.Since(b.started).Seconds())
	gauge(w, "weir_storage_writable", flag(state.Writable))
	gauge(w, "weir_storage_disk_full", flag(state.DiskFull))
	gauge(w, "weir_storage_free_bytes", state.BytesFree)
	gauge(w, "weir_storage_total_bytes", state.BytesTotal)
	gauge(w, "weir_storage_lifetime_ingested_bytes", ledger.Total.BytesIngested)
	gauge(w, "weir_storage_lifetime_written_bytes", ledger.Total.BytesWritten)
	// Counters are since the start: a sum over the life may lose its last minutes to a
	// crash, and one that goes back by a little is taken for one that began again at 0.
	since := ledger.SinceOpen
	gauge(w, "weir_storage_ingested_records_total", since.Records)
	gauge(w, "weir_storage_ingested_bytes_total", since.BytesIngested)
	gauge(w, "weir_storage_written_bytes_total", since.BytesWritten)
	gauge(w, "weir_storage_compacted_bytes_total", since.BytesCompaction)
	gauge(w, "weir_storage_commits_total", since.Commits)
}

func (b *box) writeListener(w io.Writer) {
	s := b.server.Stats()
	gauge(w, "weir_http_connections", s.Conns)
	gauge(w, "weir_http_requests_in_flight", s.Requests)
	gauge(w, "weir_http_streams_in_flight", s.Streams)
	gauge(w, "weir_http_body_bytes_in_flight", s.BodyBytes)
	gauge(w, "weir_http_answer_bytes_in_flight", s.AnswerBytes)
	gauge(w, "weir_http_connections_total", s.Accepted)
	const turnedAway = "weir_http_connections_turned_away_total"
	gauge(w, turnedAway+`{reason="full"}`, s.TurnedAway.Full)
	gauge(w, turnedAway+`{reason="address"}`, s.TurnedAway.Address)
	gauge(w, turnedAway+`{reason="cleartext"}`, s.TurnedAway.Cleartext)
	gauge(w, "weir_http_bad_handshakes_total", s.BadHandshakes)
	gauge(w, "weir_http_requests_total", s.TotalRequests)
	gauge(w, "weir_http_requests_refused_total", s.Refused)
	gauge(w, "weir_http_panics_total", s.Panics)
	proofs := b.gate.Stats()
	gauge(w, "weir_http_identities_not_proven_total", proofs.Failed)
	gauge(w, "weir_http_identities_not_tried_total", proofs.Limited)
}

func (b *box) writeStreams(w io.Writer) {
	for _, st := range b.store.Streams() {
		var open int
		var stored int64
		var last time.Time
		for _, sh := range st.Shards() {
			open += flag(sh.Open())
			stored += sh.Bytes
			if sh.LastArrival.After(last) {
				last = sh.LastArrival
			}
		}
		label := fmt.Sprintf("{stream=%q}", st.Name())
		gauge(w, "weir_stream_open_shards"+label, open)
		gauge(w, "weir_stream_stored_bytes"+label, stored)
		gauge(w, "weir_stream_records_total"+label, st.Taken()) // since the start, as counters are
		lost := st.Lost()
		for _, reason := range []storage.GapReason{storage.GapDropped, storage.GapThinned, storage.GapDamage} {
			gauge(w, fmt.Sprintf("weir_stream_lost_records_total{stream=%q,reason=%q}", st.Name(), reason), lost[reason])
		}
		if !last.IsZero() {
			gauge(w, "weir_stream_last_arrival_timestamp_seconds"+label, float64(last.UnixMilli())/1000)
		}
	}
}

// writeModules writes what the versions of modules counted, and the metrics that they
// define themselves, as weir_module_metric_NAME.
func writeModules(w io.Writer, modules []module.Info) {
	for _, m := range modules {
		for i := range m.Versions {
			v := &m.Versions[i]
			s := &v.Stats
			if v.Version != m.Active && s.Batches+s.Errors == 0 {
				continue // never run
			}
			label := fmt.Sprintf("{module=%q,version=%q}", m.Name, v.Version)
			gauge(w, "weir_module_active"+label, flag(v.Version == m.Active))
			gauge(w, "weir_module_batches_total"+label, s.Batches)
			gauge(w, "weir_module_records_total"+label, s.Records)
			gauge(w, "weir_module_outputs_total"+label, s.Outputs)
			gauge(w, "weir_module_dropped_total"+label, s.Dropped)
			gauge(w, "weir_module_failed_total"+label, s.Failed)
			gauge(w, "weir_module_aborts_total"+label, s.Aborts)
			gauge(w, "weir_module_retries_total"+label, s.Retries)
			gauge(w, "weir_module_errors_total"+label, s.Errors)
			gauge(w, "weir_module_fuel_total"+label, s.Fuel)
			gauge(w, "weir_module_seconds_total"+label, s.WallSeconds)
			for k := range s.Metrics {
				writeModuleMetric(w, label, &s.Metrics[k])
			}
		}
	}
}

func writeModuleMetric(w io.Writer, label string, m *guest.Metric) {
	name := "weir_module_metric_" + m.Name
	if m.Buckets == nil {
		gauge(w, name+label, m.Value)
		return
	}
	bucket := name + "_bucket" + strings.TrimSuffix(label, "}")
	var below uint64
	for i, n := range m.Buckets[:len(m.Buckets)-1] {
		below += n
		gauge(w, fmt.Sprintf("%s,le=\"%v\"}", bucket, guest.BucketBound(i)), below)
	}
	gauge(w, bucket+`,le="+Inf"}`, m.Count)
	gauge(w, name+"_sum"+label, m.Sum)
	gauge(w, name+"_count"+label, m.Count)
}
