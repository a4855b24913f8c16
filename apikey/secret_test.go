package apikey_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/usher-go/usher/apikey"
)

const canary = "canary_live_7Qx0bWc5eYt1"

func TestSecretRevealsItsTextOnRequestOnly(t *testing.T) {
	if got := apikey.NewSecret(canary).Reveal(); got != canary {
		t.Errorf("Reveal: %q", got)
	}
	if got := (apikey.Secret{}).Reveal(); got != "" {
		t.Errorf("Reveal of the zero value: %q", got)
	}
}

func TestSecretIsPrintedByNoVerb(t *testing.T) {
	type hidden struct{ inner apikey.Secret }
	type shown struct{ Inner apikey.Secret }
	s := apikey.NewSecret(canary)
	values := map[string]any{
		"value": s, "pointer": &s, "field": shown{s}, "unexported field": hidden{s},
		"slice": []apikey.Secret{s}, "map": map[string]apikey.Secret{"k": s},
		"pepper": apikey.Pepper{Version: 1, Key: s}, "error": fmt.Errorf("with %v", s),
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%e", "%t", "%c", "%U", "%p", "%T", "%z", "%10.3s"}
	for name, v := range values {
		for _, verb := range verbs {
			mustNotLeak(t, name+" with "+verb, fmt.Sprintf(verb, v))
		}
		mustNotLeak(t, name+" with Print", fmt.Sprint(v))
	}
}

func TestSecretIsEncodedByNoEncoder(t *testing.T) {
	s := apikey.NewSecret(canary)
	v := struct {
		Key  apikey.Secret
		Keys map[string]apikey.Secret
	}{s, map[string]apikey.Secret{"k": s}}
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Key":"[redacted]","Keys":{"k":"[redacted]"}}`; string(asJSON) != want {
		t.Errorf("JSON: %s, want %s", asJSON, want)
	}
	asXML, err := xml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	mustNotLeak(t, "XML", string(asXML))
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("made", "key", s, "value", v, "pointer", &s, "group", slog.GroupValue(slog.Any("k", s)))
	}
	mustNotLeak(t, "slog", log.String())
	if !strings.Contains(log.String(), "[redacted]") {
		t.Errorf("the log shows nothing at all: %s", log.String())
	}
}

// mustNotLeak fails if text holds the canary, as it stands or in hexadecimal.
func mustNotLeak(t testing.TB, where, text string) {
	t.Helper()
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary), fmt.Sprint([]byte(canary))} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the key: %s", where, text)
		}
	}
}
