// Package demo is the appliance doing its main job on real input: this machine's
// own telemetry, sent by the unmodified AWS SDK for Go through the real port,
// transformed by a WebAssembly module and delivered as compressed objects.
//
// It owns the sensors, the simulated fleet, the live lines and the proof at the
// end: every object is read back and compared with the log, record by record. It
// uses the appliance from outside only, over its port, as a user's program does.
package demo
