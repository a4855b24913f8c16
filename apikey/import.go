package apikey

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// ImportText adds a key by its text, for instance the first key of a service, which its
// configuration has:
//
//	_, err := keys.Manager.ImportText(ctx, apikey.Actor{System: true}, apikey.Key{Owner: "ops", Name: "first"}, text)
//	if err != nil && !errors.Is(err, apikey.ErrConflict) {
//		return err
//	}
//
// It uses the same fields of template as [Manager.Create]. It sets Prefix, LastFour and
// Environment from the text, which must have a format of the Manager. Text that is stored
// already, with any pepper and in whatever state, is [ErrConflict]. So every process may
// call ImportText at every start: one of them adds the key, and once it is revoked it stays
// revoked, until [Manager.Purge] removes it.
func (m *Manager) ImportText(ctx context.Context, by Actor, template Key, text Secret) (Key, error) {
	r, err := m.importText(ctx, by, template, text.Reveal())
	if err != nil {
		m.note(ctx, "import", by, Key{Owner: r.Owner}, err)
		return Key{}, err
	}
	m.note(ctx, "import", by, r.Key, nil)
	return r.Key, nil
}

func (m *Manager) importText(ctx context.Context, by Actor, template Key, text string) (Record, error) {
	failed := Record{Key: Key{Owner: template.Owner}}
	if _, err := m.authorize(ctx, by); err != nil {
		return failed, err
	}
	var shown Key
	if err := callback("ManagerConfig.Formats", func() (err error) { shown, err = m.inspect(text); return err }); err != nil {
		return failed, err
	}
	switch _, err := m.lookup(ctx, text); {
	case err == nil:
		return failed, ErrConflict
	case !errors.Is(err, ErrNotFound):
		return failed, err
	}
	if template.Environment == "" {
		template.Environment = shown.Environment
	}
	r, err := m.prepare(ctx, by, template, func(r *Record) error {
		if shown.Environment != "" && r.Environment != shown.Environment {
			return errors.New("apikey: import of a key whose text is for another environment")
		}
		r.Hash, r.Prefix, r.LastFour = m.hasher.newest(text), shown.Prefix, shown.LastFour
		return nil
	})
	if err != nil {
		return r, err
	}
	return r, m.store.Insert(ctx, r, m.limits.issue())
}

// inspect returns what is stored of text beside its hash: Environment, Prefix and
// LastFour.
func (m *Manager) inspect(text string) (k Key, err error) {
	if len(text) <= maxLength {
		for _, f := range m.deciding(text) {
			environment, visible, ok := f.Parse(text)
			if ok {
				k.Environment = environment
				return k, k.show(f, text, 0, visible)
			}
		}
	}
	return k, errors.New("apikey: import of text that has no format of the Manager")
}

// deciding returns the formats that decide about text: those that have a prefix with which
// it begins, or else those that have none.
func (m *Manager) deciding(text string) []Format {
	var claiming, open []Format
	for _, f := range m.formats {
		prefixes := f.Prefixes()
		if len(prefixes) == 0 {
			open = append(open, f)
		} else if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(text, p) }) {
			claiming = append(claiming, f)
		}
	}
	if len(claiming) > 0 {
		return claiming
	}
	return open
}

// checkImport returns what is wrong with the Prefix and LastFour of k, whose text is known
// by its hash only.
func (m *Manager) checkImport(k *Key, h Hash) error {
	if err := checkShown(k); err != nil {
		return err
	}
	i := slices.IndexFunc(m.hasher.peppers, func(p pepper) bool { return p.version == h[0] })
	// The last four characters may be part of the prefix, too.
	for n := range len(k.LastFour) + 1 {
		if text := k.Prefix + k.LastFour[n:]; len(text) <= maxLength && m.hasher.peppers[i].hash(text) == h {
			return errors.New("apikey: import of a key whose Prefix and LastFour are its whole text")
		}
	}
	if k.Prefix != "" && !m.mayBegin(k.Prefix) {
		return errors.New("apikey: import of a key whose Prefix no format of the Manager accepts")
	}
	return nil
}

// mayBegin reports whether the text of a key that is accepted may begin with prefix. A
// prefix that ends within that of a format is nobody's yet.
func (m *Manager) mayBegin(prefix string) bool {
	begins := func(f Format) bool {
		if f, ours := f.(definition); ours {
			return f.mayBegin(prefix)
		}
		return true
	}
	within := func(f Format) bool {
		return slices.ContainsFunc(f.Prefixes(), func(p string) bool { return strings.HasPrefix(p, prefix) })
	}
	return slices.ContainsFunc(m.formats, within) || slices.ContainsFunc(m.deciding(prefix), begins)
}

// labelled reports whether prefix is one of labels followed by what body accepts as the
// beginning of a body.
func labelled(prefix string, labels []string, body func(begin string) bool) bool {
	return slices.ContainsFunc(labels, func(label string) bool {
		begin, ok := strings.CutPrefix(prefix, label)
		return ok && body(begin)
	})
}
