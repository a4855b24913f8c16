package usher_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// dependencies are all modules that importing a package of this module may link into a
// program.
var dependencies = []string{
	"github.com/usher-go/usher",
	"github.com/golang-jwt/jwt/v5",
	"github.com/hashicorp/golang-lru/v2",
	"golang.org/x/time",

	// The OpenTelemetry API, and what it links itself.
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/log",
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
	"go.opentelemetry.io/auto/sdk",
	"github.com/cespare/xxhash/v2",
	"github.com/go-logr/logr",
	"github.com/go-logr/stdr",
}

func TestDependencies(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	slices.Sort(linked)
	linked = slices.Compact(linked)
	if !slices.Contains(linked, "github.com/usher-go/usher") {
		t.Fatalf("go list names only %q", linked)
	}
	for _, module := range linked {
		if !slices.Contains(dependencies, module) {
			t.Errorf("the module links %s", module)
		}
	}
}

// What only tests need is required by a separate module, which nothing else requires.
func TestRequirements(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct{ Path string }
		Replace []any
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Require) == 0 {
		t.Fatalf("go mod edit -json prints %s", out)
	}
	for _, r := range mod.Require {
		if !slices.Contains(dependencies, r.Path) {
			t.Errorf("go.mod requires %s, which no program needs", r.Path)
		}
	}
	if len(mod.Replace) > 0 {
		t.Errorf("go.mod replaces %v, for itself alone", mod.Replace)
	}
}
