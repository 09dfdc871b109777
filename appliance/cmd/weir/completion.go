package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/weirhq/weir/appliance/cmd/internal/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash (source it), zsh (source it after compinit, or keep it as _weir in fpath) or fish (source it)."`
}

// Each script asks the binary for the candidates, so it never falls behind it.
var completionScripts = map[string]string{
	"bash": `_weir() { local IFS=$'\n'; COMPREPLY=($("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}")); }
complete -o default -F _weir weir
`,
	"zsh": `#compdef weir
_weir() { local -a c; c=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}")}"); [[ -n "$c" ]] && compadd -a c || _files; }
if [[ "$funcstack[1]" == _weir ]]; then _weir; else compdef _weir weir; fi
`,
	"fish": `function __weir_complete
    set -l words (commandline -opc)
    set -l c (command $words[1] __complete $words[2..-1] (commandline -ct))
    set -q c[1]; and printf '%s\n' $c; or __fish_complete_path (commandline -ct)
end
complete -c weir -f -a '(__weir_complete)'
`,
}

func (c *completionCmd) Run(a *app) error {
	script := completionScripts[c.Shell]
	return a.emit(map[string]string{"shell": c.Shell, "script": script}, func(w io.Writer) { fmt.Fprint(w, script) })
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (c *completeCmd) Run(a *app) error {
	for _, word := range candidates(a.parser.Model.Node, c.Words) {
		fmt.Fprintln(a.out, word)
	}
	return nil
}

// candidates returns what the last of words may become: a verb below the ones
// before it, one of its flags, or a value that a flag or an argument lists.
func candidates(root *kong.Node, words []string) []string {
	node, last := root, ""
	if len(words) > 0 {
		words, last = words[:len(words)-1], words[len(words)-1]
	}
	var pending *kong.Flag // the flag before the last word, when it wants a value
	for _, w := range words {
		pending = nil
		if strings.HasPrefix(w, "-") {
			if f := findFlag(node, w); f != nil && !f.IsBool() {
				pending = f
			}
			continue
		}
		for _, child := range node.Children {
			if child.Name == w {
				node = child
			}
		}
	}
	var all []string
	switch {
	case pending != nil:
		all = enum(pending.Value)
	case strings.HasPrefix(last, "-"):
		showFlagsOf(root, node)
		for _, level := range node.AllFlags(true) {
			for _, f := range level {
				all = append(all, "--"+f.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		for _, p := range node.Positional {
			all = append(all, enum(p)...)
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, last) })
	slices.Sort(all)
	return slices.Compact(all)
}

func findFlag(node *kong.Node, word string) *kong.Flag {
	for _, level := range node.AllFlags(false) {
		for _, f := range level {
			if word == "--"+f.Name || (f.Short != 0 && word == "-"+string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(strings.Split(v.Enum, ","), func(s string) bool { return s == "" })
}
