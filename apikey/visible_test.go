package apikey_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/usher-go/usher/apikey"
)

// A hexFormat is a format of an application, whose environments have prefixes of different
// lengths.
type hexFormat struct {
	entropy, visible int
	prefixes         []string
}

func (f hexFormat) Parse(string) (string, int, bool) { return "", f.visible, true }
func (f hexFormat) Prefixes() []string               { return f.prefixes }
func (f hexFormat) Entropy() int                     { return f.entropy }
func (f hexFormat) Generate(_ io.Reader, environment string) (string, error) {
	for _, p := range f.prefixes {
		if environment == "" || strings.Contains(p, environment) {
			return p + strings.Repeat("0123456789abcdef", 4), nil
		}
	}
	return "", fmt.Errorf("no environment %q", environment)
}

// The number of visible characters is one for all environments, so the one with the
// shortest name shows the most random characters.
func TestEveryEnvironmentKeeps112BitsHidden(t *testing.T) {
	long := []string{"production_eu_01", "t"}
	for _, test := range []struct {
		name   string
		format apikey.Format
		most   int // the largest Visible
		// bits is the entropy of one random character, and public is how many characters
		// after the prefix are none.
		bits, public int
	}{
		{"native", apikey.Native{Prefix: "shop", Environments: long}, len("shop_t_") + 20, 6, 0},
		{"native without environments", apikey.Native{Prefix: "shop"}, len("shop_") + 20, 6, 0},
		{"opaque", apikey.Opaque{Prefix: "shop", Environments: long}, len("shop_t_") + 20, 6, 0},
		{"the shortest opaque", apikey.Opaque{Prefix: "shop", Environments: long, Length: 22}, len("shop_t_"), 6, 0},
		{"split", apikey.Split{Prefix: "shop", Environments: long}, len("shop_t_") + 17 + 20, 6, 17},
		{"a format of the application", hexFormat{256, 0, []string{"live_", "t_"}}, len("t_") + 16, 7, 0},
		{"a format without prefixes", ownFormat{strings.Repeat("k", 40), 4, true}, 16, 7, 0},
		{"a format that shows nearly all", hexFormat{256, 60, []string{"live_", "t_"}}, len("t_") + 16, 7, 0},
		{"a weak format", hexFormat{128, 9, []string{"live_", "t_"}}, len("t_"), 7, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			for visible, ok := range map[int]bool{0: true, test.most: true, test.most + 1: false} {
				_, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: test.format, Visible: visible})
				if (err == nil) != ok {
					t.Errorf("%d visible characters: %v", visible, err)
				}
			}
			environments := []string{""}
			if len(test.format.Prefixes()) > 1 {
				environments = append(environments, "t")
			}
			for _, visible := range []int{0, test.most} {
				m := newManager(t, apikey.ManagerConfig{Format: test.format, Visible: visible})
				for _, environment := range environments {
					k, text := create(t, m, apikey.Key{Environment: environment})
					label := test.public
					for _, p := range test.format.Prefixes() {
						if strings.HasPrefix(text, p) {
							label += len(p)
						}
					}
					shown := max(0, len(k.Prefix)-label) + len(k.LastFour)
					if hidden := test.format.Entropy() - test.bits*shown; hidden < 112 {
						t.Errorf("Visible %d: %q...%q leaves %d bits hidden", visible, k.Prefix, k.LastFour, hidden)
					}
					if visible > 0 && k.Prefix != text[:visible] || !strings.HasSuffix(text, k.LastFour) {
						t.Errorf("Visible %d: %q...%q", visible, k.Prefix, k.LastFour)
					}
				}
			}
		})
	}
}
