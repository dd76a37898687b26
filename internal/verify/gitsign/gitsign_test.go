package gitsign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"
)

func must[T any](value T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func data(t testing.TB, name string) []byte {
	t.Helper()
	return must(os.ReadFile(filepath.Join("testdata", name)))(t)
}

func keysOf(t testing.TB, entries map[string][]byte) *Keys {
	t.Helper()
	return must(ReadKeys(entries))(t)
}

// check verifies an object; a signer that is empty means an error with the words.
func check(t *testing.T, keys *Keys, object []byte, signer string, words ...string) {
	t.Helper()
	got, err := keys.Verify(object)
	if signer != "" {
		if err != nil || got != signer {
			t.Errorf("got signer %q and error %v, want %q", got, err, signer)
		}
		return
	}
	if err == nil || got != "" {
		t.Fatalf("taken as signed by %q", got)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
	if again := second(keys.Verify(object)); again.Error() != err.Error() {
		t.Errorf("the error changes from %q to %q", err, again)
	}
}

func second(_ string, err error) error { return err }

// TestWhatGitSigned: objects made with the programs that people use.
func TestWhatGitSigned(t *testing.T) {
	t.Parallel()
	files := must(filepath.Glob("testdata/*"))(t)
	all := map[string][]byte{}
	for _, file := range files {
		if name := filepath.Base(file); strings.HasSuffix(name, ".asc") || strings.HasSuffix(name, ".sshpub") {
			all[name] = data(t, name)
		}
	}
	tested := 0
	for _, file := range files {
		name := filepath.Base(file)
		who, kind, _ := strings.Cut(name, ".")
		who = strings.TrimSuffix(who, "-merge")
		if kind != "commit" && kind != "tag" {
			continue
		}
		tested++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object := data(t, name)
			own, others := map[string][]byte{}, map[string][]byte{}
			for key, text := range all {
				if strings.HasPrefix(key, who+".") {
					own[key] = text
				} else {
					others[key] = text
				}
			}
			signer, err := keysOf(t, own).Verify(object)
			if err != nil || signer == "" {
				t.Fatalf("signer %q, error %v", signer, err)
			}
			check(t, keysOf(t, all), object, signer)
			check(t, keysOf(t, others), object, "", "none of the public keys")
			for i := range object {
				changed := bytes.Clone(object)
				changed[i] ^= 1
				if got, err := keysOf(t, own).Verify(changed); err == nil && !bytes.Equal(mustParse(t, changed).payload, mustParse(t, object).payload) {
					t.Errorf("with byte %d (%q) changed it is still signed by %q", i, object[i], got)
				}
			}
		})
	}
	if tested < 11 {
		t.Errorf("%d objects were looked at", tested)
	}
}

func mustParse(t testing.TB, raw []byte) object {
	t.Helper()
	return must(parse(raw))(t)
}

const unsignedCommit = "tree aaff74984cccd156a469afa7d9ab10e4777beb24\n" +
	"parent fa3b120355e3f8f453b726987d715664c5fef1ff\n" +
	"author Ann <ann@example.com> 1795669624 +0000\n" +
	"committer Ann <ann@example.com> 1795669624 +0000\n" +
	"\nmessage\n"

const unsignedTag = "object 3f945602ba1356f35975fde7807f3617162669e3\ntype commit\ntag v1\n" +
	"tagger Ann <ann@example.com> 1795669624 +0000\n\nmessage\n"

// attach puts a signature where Git puts it.
func attach(payload, signature string) []byte {
	if strings.HasPrefix(payload, "object ") {
		return []byte(payload + signature)
	}
	head, body, _ := strings.Cut(payload, "\n\n")
	folded := strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ")
	return []byte(head + "\ngpgsig " + folded + "\n\n" + body)
}

// sshSigner signs like ssh-keygen, with everything that can be wrong.
type sshSigner struct {
	key                     ssh.Signer
	namespace, hash, magic  string
	version                 uint32
	algorithm               string
	trailing, innerTrailing string
}

func newSSHSigner(t testing.TB) *sshSigner {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &sshSigner{key: must(ssh.NewSignerFromKey(private))(t), namespace: "git", hash: "sha512", magic: "SSHSIG", version: 1}
}

func (s *sshSigner) entries() map[string][]byte {
	return map[string][]byte{"key.sshpub": ssh.MarshalAuthorizedKey(s.key.PublicKey())}
}

func (s *sshSigner) sign(t testing.TB, payload string) string {
	t.Helper()
	sum := sha512.Sum512([]byte(payload))
	message := append([]byte(s.magic), ssh.Marshal(statement{Namespace: s.namespace, Hash: s.hash, Digest: sum[:]})...)
	var signature *ssh.Signature
	if s.algorithm == "" {
		signature = must(s.key.Sign(rand.Reader, message))(t)
	} else {
		signature = must(s.key.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, message, s.algorithm))(t)
	}
	e := envelope{
		Version: s.version, PublicKey: s.key.PublicKey().Marshal(), Namespace: s.namespace, Hash: s.hash,
		Signature: append(ssh.Marshal(signature), s.innerTrailing...),
	}
	copy(e.Magic[:], s.magic)
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: append(ssh.Marshal(e), s.trailing...)}))
}

func TestSSH(t *testing.T) {
	t.Parallel()
	rsaSigner := func(t *testing.T, bits int) ssh.Signer {
		return must(ssh.NewSignerFromKey(must(rsa.GenerateKey(rand.Reader, bits))(t)))(t)
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, s *sshSigner)
		word   string
	}{
		"as it should be":                  {func(*testing.T, *sshSigner) {}, ""},
		"for files":                        {func(_ *testing.T, s *sshSigner) { s.namespace = "file" }, "something else than Git"},
		"for nothing":                      {func(_ *testing.T, s *sshSigner) { s.namespace = "" }, "something else than Git"},
		"of another version":               {func(_ *testing.T, s *sshSigner) { s.version = 2 }, "version 2"},
		"with another magic word":          {func(_ *testing.T, s *sshSigner) { s.magic = "SSHSIX" }, "cannot be read"},
		"over an unknown hash":             {func(_ *testing.T, s *sshSigner) { s.hash = "sha1" }, "hash that is not supported"},
		"over another hash than it says":   {func(_ *testing.T, s *sshSigner) { s.hash = "sha256" }, "does not fit"},
		"with something behind it":         {func(_ *testing.T, s *sshSigner) { s.trailing = "x" }, "cannot be read"},
		"with something behind its number": {func(_ *testing.T, s *sshSigner) { s.innerTrailing = "x" }, "something behind"},
		"by RSA with SHA-256":              {func(t *testing.T, s *sshSigner) { s.key, s.algorithm = rsaSigner(t, 2048), ssh.KeyAlgoRSASHA256 }, ""},
		"by RSA with SHA-1":                {func(t *testing.T, s *sshSigner) { s.key, s.algorithm = rsaSigner(t, 2048), ssh.KeyAlgoRSA }, "SHA-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSSHSigner(t)
			test.change(t, s)
			keys := keysOf(t, s.entries())
			for _, payload := range []string{unsignedCommit, unsignedTag} {
				want := ""
				if test.word == "" {
					want = ssh.FingerprintSHA256(s.key.PublicKey())
				}
				check(t, keys, attach(payload, s.sign(t, payload)), want, test.word)
			}
		})
	}
}

// pgpKey makes a key that was made at a time and lives so many seconds; 0 is forever.
func pgpKey(t testing.TB, made time.Time, seconds uint32) *openpgp.Entity {
	t.Helper()
	return must(openpgp.NewEntity("Ann", "", "ann@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: seconds, Time: func() time.Time { return made },
	}))(t)
}

func export(t testing.TB, entity *openpgp.Entity) map[string][]byte {
	t.Helper()
	var out bytes.Buffer
	w := must(armor.Encode(&out, openpgp.PublicKeyType, nil))(t)
	if err := errors.Join(entity.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"key.asc": out.Bytes()}
}

func signPGP(t testing.TB, entity *openpgp.Entity, payload string, config *packet.Config) string {
	t.Helper()
	var out bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&out, entity, strings.NewReader(payload), config); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

func TestOpenPGP(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-48 * time.Hour)
	at := func(when time.Time) *packet.Config { return &packet.Config{Time: func() time.Time { return when }} }
	good := pgpKey(t, long, 0)
	id := good.PrimaryKey.KeyIdString()
	expired := pgpKey(t, long, 3600)
	revoked := pgpKey(t, long, 0)
	revokedSigned := signPGP(t, revoked, unsignedCommit, at(long.Add(time.Minute)))
	if err := revoked.RevokeKey(packet.KeyCompromised, "gone", nil); err != nil {
		t.Fatal(err)
	}
	late := pgpKey(t, long, 0)
	signing := pgpKey(t, long, 0)
	if err := signing.AddSigningSubkey(at(long)); err != nil {
		t.Fatal(err)
	}
	lost := pgpKey(t, long, 0)
	if err := lost.AddSigningSubkey(at(long)); err != nil {
		t.Fatal(err)
	}
	subSigned := signPGP(t, lost, unsignedCommit, nil)
	if err := lost.RevokeSubkey(&lost.Subkeys[len(lost.Subkeys)-1], packet.KeyCompromised, "gone", nil); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := openpgp.ArmoredDetachSignText(&text, good, strings.NewReader(unsignedCommit), nil); err != nil {
		t.Fatal(err)
	}
	signature := signPGP(t, good, unsignedCommit, nil)
	for name, test := range map[string]struct {
		key       *openpgp.Entity
		signature string
		signer    string
		word      string
	}{
		"as it should be":              {good, signature, id, ""},
		"by a subkey":                  {signing, signPGP(t, signing, unsignedCommit, nil), signing.PrimaryKey.KeyIdString(), ""},
		"by another key":               {good, signPGP(t, late, unsignedCommit, nil), "", "none of the public keys"},
		"of another object":            {good, signPGP(t, good, unsignedTag, nil), "", "does not fit"},
		"by a key that has expired":    {expired, signPGP(t, expired, unsignedCommit, at(long.Add(time.Minute))), "", "has expired"},
		"by a key that is revoked":     {revoked, revokedSigned, "", "is revoked"},
		"by a subkey that is revoked":  {lost, subSigned, "", "is revoked"},
		"that has expired":             {good, signPGP(t, good, unsignedCommit, &packet.Config{SigLifetimeSecs: 60, Time: func() time.Time { return long.Add(time.Minute) }}), "", "signature of key " + id + " has expired"},
		"over a text":                  {good, text.String(), "", "not over the bytes"},
		"twice":                        {good, rearm(t, signature, signature), "", "more than one"},
		"with another one of a friend": {good, rearm(t, signPGP(t, late, unsignedCommit, nil), signature), "", "more than one"},
		"with something behind":        {good, strings.TrimSpace(signature) + "\nx\n", "", "something behind"},
		"that is a message":            {good, strings.ReplaceAll(signature, "PGP SIGNATURE", "PGP MESSAGE"), "", "neither of OpenPGP nor of SSH"},
		"of a certificate":             {good, strings.ReplaceAll(signature, "PGP SIGNATURE", "SIGNED MESSAGE"), "", "neither of OpenPGP nor of SSH"},
		"without an end":               {good, strings.ReplaceAll(signature, "-----END", "-----FIN"), "", "no end"},
		"that is no armor":             {good, "-----BEGIN PGP SIGNATURE-----\n\n!!!!\n-----END PGP SIGNATURE-----\n", "", "cannot be read"},
		"that is empty":                {good, "-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n", "", "cannot be read"},
		"that is a key":                {good, strings.ReplaceAll(string(export(t, good)["key.asc"]), "PGP PUBLIC KEY BLOCK", "PGP SIGNATURE") + "\n", "", "something else"},
		"that is far too long":         {good, strings.Replace(signature, "\n\n", "\nComment: "+strings.Repeat("x", longestSignature)+"\n\n", 1), "", "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, keysOf(t, export(t, test.key)), attach(unsignedCommit, test.signature), test.signer, test.word)
		})
	}
}

// rearm puts what is in several armors into one.
func rearm(t testing.TB, armored ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := must(armor.Encode(&out, openpgp.SignatureType, nil))(t)
	for _, text := range armored {
		block := must(armor.Decode(strings.NewReader(text)))(t)
		var raw bytes.Buffer
		if _, err := raw.ReadFrom(block.Body); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(raw.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String() + "\n"
}

// TestWeakHashes: testdata has a signature with SHA-1, which the library takes, as GnuPG
// and Flux do; it takes nothing older.
func TestWeakHashes(t *testing.T) {
	t.Parallel()
	key := pgpKey(t, time.Now().Add(-time.Hour), 0)
	block := must(armor.Decode(strings.NewReader(signPGP(t, key, unsignedCommit, nil))))(t)
	raw := must(io.ReadAll(block.Body))(t)
	for hash, number := range map[string]byte{"MD5": 1, "RIPEMD-160": 3, "of no name": 77} {
		weak := bytes.Clone(raw)
		weak[len(weak)-bodyOf(t, weak)+3] = number // the fourth byte of the body names the hash
		var out bytes.Buffer
		w := must(armor.Encode(&out, openpgp.SignatureType, nil))(t)
		if _, err := w.Write(weak); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		t.Run(hash, func(t *testing.T) {
			t.Parallel()
			check(t, keysOf(t, export(t, key)), attach(unsignedCommit, out.String()+"\n"), "", "not supported")
		})
	}
}

// bodyOf is the length of the body of a packet with a header in the new format.
func bodyOf(t testing.TB, raw []byte) int {
	t.Helper()
	switch {
	case raw[0]&0xc0 != 0xc0 || raw[1] >= 224:
		t.Fatalf("a packet header % x", raw[:3])
	case raw[1] < 192:
		return int(raw[1])
	}
	return (int(raw[1])-192)<<8 + int(raw[2]) + 192
}

func TestReadKeys(t *testing.T) {
	t.Parallel()
	s := newSSHSigner(t)
	line := string(ssh.MarshalAuthorizedKey(s.key.PublicKey()))
	weak := must(ssh.NewPublicKey(&must(rsa.GenerateKey(rand.Reader, 1024))(t).PublicKey))(t)
	asc := string(data(t, "pgp-rsa.asc"))
	for name, test := range map[string]struct {
		entries  map[string][]byte
		pgp, ssh int
		word     string
	}{
		"nothing":                         {nil, 0, 0, "there is no public key"},
		"empty entries":                   {map[string][]byte{"a.asc": nil, "b.sshpub": nil}, 0, 0, `"a.asc": it has no armored OpenPGP key; "b.sshpub": it has no SSH key`},
		"both kinds":                      {map[string][]byte{"a.asc": []byte(asc), "b.sshpub": []byte(line)}, 1, 1, ""},
		"another ending is OpenPGP":       {map[string][]byte{"author": []byte(asc)}, 1, 0, ""},
		"an SSH key under another ending": {map[string][]byte{"a.pub": []byte(line)}, 0, 0, "a.pub"},
		"several keys in one entry":       {map[string][]byte{"a.asc": []byte(asc + string(data(t, "pgp-ed25519.asc"))), "b.sshpub": []byte("# ours\n\n" + line + line)}, 2, 2, ""},
		"one unreadable entry":            {map[string][]byte{"a.asc": []byte("x"), "b.sshpub": []byte(line)}, 0, 1, ""},
		"half a key":                      {map[string][]byte{"a.asc": []byte(asc[:len(asc)/2])}, 0, 0, "no armored OpenPGP key"},
		"allowed signers":                 {map[string][]byte{"b.sshpub": []byte("ann@example.com " + line)}, 0, 1, ""},
		"an authority":                    {map[string][]byte{"b.sshpub": []byte("cert-authority " + line)}, 0, 0, `option "cert-authority"`},
		"a key for other things":          {map[string][]byte{"b.sshpub": []byte(`namespaces="file" ` + line)}, 0, 0, `option "namespaces"`},
		"a broken line":                   {map[string][]byte{"b.sshpub": []byte(line + "ssh-ed25519 x\n")}, 0, 0, "line 2 is no SSH key"},
		"a weak key":                      {map[string][]byte{"b.sshpub": ssh.MarshalAuthorizedKey(weak)}, 0, 0, "fewer than 2048 bits"},
		"too many":                        {map[string][]byte{"b.sshpub": []byte(strings.Repeat(line, mostKeys+1))}, 0, 0, "more than 1000 public keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := ReadKeys(test.entries)
			if test.word != "" {
				if err == nil || !strings.Contains(err.Error(), test.word) {
					t.Errorf("error %v, want one that says %q", err, test.word)
				}
				return
			}
			if err != nil || len(keys.pgp) != test.pgp || len(keys.ssh) != test.ssh {
				t.Errorf("got %+v and error %v", keys, err)
			}
		})
	}
}

// TestUnreadableKeysAreNamed: a key that is missing may be the one that cannot be read.
func TestUnreadableKeysAreNamed(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, map[string][]byte{"a.asc": data(t, "pgp-rsa.asc"), "bob.asc": []byte("x"), "carol.sshpub": []byte("x y z")})
	check(t, keys, data(t, "pgp-ed25519.commit"), "", "none of the public keys", `"bob.asc": it has no`)
	check(t, keys, data(t, "ssh-ed25519.commit"), "", "SSH signature, and there is no such key", `"carol.sshpub": line 1`)
}
