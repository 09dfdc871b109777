// Package config is the one typed tree of settings of the appliance, and the
// way it is filled: Default, then the file, then WEIR_… in the environment.
//
// The tree describes itself. A field's yaml tag is its key, doc says what it
// does, min, max and oneof bound it, and live:"true" marks what a reload
// applies without a restart. Reading, checking, explaining and the names of the
// environment variables all come from those tags, so they can't disagree.
//
//	listen:                      file, strict: an unknown key is an error
//	  address: 0.0.0.0:4567      listen.address      path
//	                             WEIR_LISTEN_ADDRESS environment, wins over the file
//
// Load reports every problem at once, each with file, line and path. The
// package never opens anything but the configuration file and the files that its
// values refer to ("${file:/path}"), and it is not imported below appliance:
// packages have Options of their own, and appliance maps one to the other.
package config
