// Package lint holds the rules of this repository that no public tool knows, as
// tests: which folder may import which, and why not; that packages and exported
// names are documented; that nothing is wired behind the reader's back; that
// tests wait for facts and not for time; that links lead somewhere.
//
// It reads the source as text and syntax. It never runs any of it.
package lint
