package usher_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// dependencies are all modules that a program may link because it imports a
// package of this module.
var dependencies = []string{
	"github.com/usher-go/usher",
	"github.com/golang-jwt/jwt/v5",
	"github.com/hashicorp/golang-lru/v2",
	"golang.org/x/crypto",
	"golang.org/x/sync",
	"golang.org/x/sys",
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
