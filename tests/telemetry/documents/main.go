// Documents writes what operators get of the telemetry of this module: a page, a Grafana
// dashboard and the rules of Prometheus. All three come from what the packages declare, so
// that none of them names what no program exports:
//
//	go run ./tests/telemetry/documents
package main

import (
	"fmt"
	"os"
	"path/filepath"

	// All packages that declare instruments.
	_ "github.com/usher-go/usher"
	_ "github.com/usher-go/usher/apikey"
	_ "github.com/usher-go/usher/envelope"
	_ "github.com/usher-go/usher/idempotency"
	_ "github.com/usher-go/usher/jwtauth"
	_ "github.com/usher-go/usher/jwtauth/jwk"
	_ "github.com/usher-go/usher/jwtauth/session"
	_ "github.com/usher-go/usher/ratelimit"
)

func main() {
	if err := write("docs"); err != nil {
		fmt.Fprintln(os.Stderr, "documents:", err)
		os.Exit(1)
	}
}

// documents are the files in docs, each with what makes it.
var documents = map[string]func() ([]byte, error){
	"telemetry.md":             page,
	"telemetry/dashboard.json": dashboard,
	"telemetry/rules.yaml":     rules,
}

// write writes the documents into dir.
func write(dir string) error {
	for name, content := range documents {
		text, err := content()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
