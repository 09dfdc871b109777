//go:build race

package delivery_test

// raceDetector: shadow memory of the race detector is no memory of the program.
const raceDetector = true
