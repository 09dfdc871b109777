package appliance

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/weirhq/weir/appliance/api"
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
	var ingested, compacted, records, commits uint64
	for _, d := range ledger.Days {
		ingested, compacted, records, commits = ingested+d.BytesIngested, compacted+d.BytesCompaction, records+d.Records, commits+d.Commits
	}
	gauge(w, "weir_storage_ingested_records_total", records)
	gauge(w, "weir_storage_ingested_bytes_total", ingested)
	gauge(w, "weir_storage_written_bytes_total", ledger.BytesWritten)
	gauge(w, "weir_storage_compacted_bytes_total", compacted)
	gauge(w, "weir_storage_commits_total", commits)
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
		if !last.IsZero() {
			gauge(w, "weir_stream_last_arrival_timestamp_seconds"+label, float64(last.UnixMilli())/1000)
		}
	}
}
