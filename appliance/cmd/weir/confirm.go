package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/weirhq/weir/appliance/fault"
)

// confirm asks before something is lost. Without a terminal to ask on, --yes is needed.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(a.in) {
		return &fault.Error{Class: fault.Usage, Subject: strings.TrimRight(question, "?."), Expect: "there is no terminal to ask on", Try: "the same command with --yes"}
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err == nil && (answer == "y" || answer == "yes") {
		return nil
	}
	return &fault.Error{Class: fault.Usage, Expect: "nothing was done"}
}
