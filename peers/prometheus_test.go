package peers_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	alertRules = "../docs/telemetry/rules.yaml"
	alertTests = "testdata/rules_test.yaml"
)

// promtool runs the program of Prometheus that checks its files.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(t, "promtool"), args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%.5000s", strings.Join(args, " "), err, out)
	}
}

func TestPrometheusAcceptsTheRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", alertRules)
}

func TestAlertsFireOnWhatTheySay(t *testing.T) {
	promtool(t, "test", "rules", alertTests)
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(alertTests)
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1)
	if len(alerts) == 0 {
		t.Error("there are no alerts")
	}
	for _, alert := range alerts {
		if !bytes.Contains(tests, fmt.Appendf(nil, `ALERTS{alertname="%s",alertstate="firing"`, alert[1])) {
			t.Errorf("%s fires in no test", alert[1])
		}
	}
}

// TestPrometheusAcceptsTheDashboard checks the queries as those of rules, with values for
// the variables of Grafana.
func TestPrometheusAcceptsTheDashboard(t *testing.T) {
	text, err := os.ReadFile("../docs/telemetry/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	rules := []byte("groups:\n- name: dashboard\n  rules:\n")
	n := 0
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Error("a panel has no query")
		}
		for _, target := range panel.Targets {
			n++
			rules = fmt.Appendf(rules, "  - record: dashboard:query%d\n    expr: %q\n", n, variables.Replace(target.Expr))
		}
	}
	if n == 0 {
		t.Error("the dashboard has no queries")
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
