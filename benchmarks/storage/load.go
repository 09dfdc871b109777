package storage

import (
	"fmt"
	"math/rand/v2"

	"github.com/weirhq/weir/storage/record"
)

// sample is one record of the load.
type sample struct {
	key, data []byte
	hash      record.HashKey
}

// pool makes n sensor records of about 207 bytes of JSON from 400 devices, a
// random walk per device. They compress as the records did that the bars were
// taken with; measureLoad prints how much.
func pool(n int) []sample {
	rng := rand.New(rand.NewPCG(1, 2))
	type device struct {
		key      []byte
		hash     record.HashKey
		values   [7]float64
		count    int
		firmware int
	}
	devices := make([]device, 400)
	for i := range devices {
		devices[i].key = fmt.Appendf(nil, "pump-%03d", i)
		devices[i].hash = record.HashOf(devices[i].key)
		devices[i].firmware = i % 3
		for j := range devices[i].values {
			devices[i].values[j] = rng.Float64() * 100
		}
	}
	samples := make([]sample, n)
	ms := int64(1_780_000_000_000)
	for i := range samples {
		d := &devices[rng.IntN(len(devices))]
		d.count++
		ms += int64(rng.IntN(20))
		for j := range d.values {
			d.values[j] += rng.NormFloat64() / 10
		}
		v := &d.values
		samples[i] = sample{key: d.key, hash: d.hash, data: fmt.Appendf(nil,
			`{"device":"%s","timestamp":%d,"counter":%d,"flow":%.2f,"pressure":%.2f,"level":%.2f,"temp_in":%.2f,"temp_out":%.2f,"vibration":%.1f,"power":%.1f,"status":"running","firmware":"2.14.%d"}`+"\n",
			d.key, ms, d.count, v[0], v[1], v[2], v[3], v[4], v[5], v[6], d.firmware)}
	}
	return samples
}

// bytesOf is the data of a batch.
func bytesOf(batch []sample) (n int) {
	for i := range batch {
		n += len(batch[i].data)
	}
	return n
}
