package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxDataKey bounds what is read of a message: a data key has 32 bytes, and a part of
// one a few more.
const maxDataKey = 1 << 10

// readPGP reads armored private keys, of which there may be several.
func readPGP(text []byte) (openpgp.EntityList, error) {
	begin := []byte("-----BEGIN PGP")
	var keys openpgp.EntityList
	for rest := text; ; {
		i := bytes.Index(rest, begin)
		if i < 0 {
			break
		}
		block := rest[i:]
		if next := bytes.Index(block[len(begin):], begin); next >= 0 {
			block = block[:len(begin)+next]
		}
		rest = rest[i+len(block):]
		read, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(block))
		if err != nil {
			return nil, errors.New("it is no armored OpenPGP key")
		}
		keys = append(keys, read...)
	}
	usable, locked := false, ""
	for _, key := range keys {
		private := []*packet.PrivateKey{key.PrivateKey}
		for _, sub := range key.Subkeys {
			private = append(private, sub.PrivateKey)
		}
		for _, p := range private {
			switch {
			case p == nil || p.Dummy() || !p.PubKeyAlgo.CanEncrypt():
			case p.Encrypted:
				locked = fmt.Sprintf("%X", key.PrimaryKey.Fingerprint)
			default:
				usable = true
			}
		}
	}
	switch {
	case usable:
		return keys, nil
	case locked != "":
		return nil, fmt.Errorf("key %s is protected by a passphrase: export it without one", locked)
	default:
		return nil, errors.New("it has no private OpenPGP key: export it with gpg --export-secret-keys --armor")
	}
}

// decryptPGP opens an armored message with one of the keys.
func decryptPGP(keys openpgp.EntityList, message []byte) ([]byte, error) {
	block, err := armor.Decode(bytes.NewReader(message))
	if err != nil {
		return nil, errors.New("what is encrypted for it is no OpenPGP message")
	}
	noPassphrase := func([]openpgp.Key, bool) ([]byte, error) { return nil, errors.New("no passphrase") }
	read, err := openpgp.ReadMessage(block.Body, keys, noPassphrase, nil)
	if err != nil {
		return nil, errors.New("no OpenPGP key fits")
	}
	content, err := io.ReadAll(io.LimitReader(read.UnverifiedBody, maxDataKey))
	if err != nil {
		return nil, errors.New("the OpenPGP message is damaged")
	}
	return content, nil
}
