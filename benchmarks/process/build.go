package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Repository returns a path below the repository that this program was built
// from: peers and guests are built from source.
func Repository(ctx context.Context, elements ...string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/weirhq/weir").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	return filepath.Join(append([]string{strings.TrimSpace(string(root))}, elements...)...), nil
}

// Build builds a package of the module in a folder, without C as the product is.
func Build(ctx context.Context, module, program, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", module, "-trimpath", "-o", program, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w: %.500s", pkg, module, err, out)
	}
	return nil
}
